"""The QPM interface as this client provides it to hosts: bindings, requests, answers, runtime."""
