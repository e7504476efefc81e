"""How client, service and worker speak: message types, their codec, and the connections."""
