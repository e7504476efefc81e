"""Choice of engine, pool and ranks: a function of program, pools and limits."""
