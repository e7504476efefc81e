"""How the plugin under test is loaded."""
