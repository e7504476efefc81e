"""Administration of an environment: policies, accounts, tokens and keys.

All clients can read the policies and their own accounts, admins set them.
"""
