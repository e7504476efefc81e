"""Calls: functions and transpilations that workers of an environment run."""
