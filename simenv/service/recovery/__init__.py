"""Restart: unfinished tasks return to the scheduler, those with damaged results run again."""
