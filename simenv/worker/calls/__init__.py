"""Calls of functions in workers: the engines that run no circuits."""
