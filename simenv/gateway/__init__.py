"""The gateway: an environment over HTTP, a process of its own and a client of the service.

`context`: what every route is given. Second level: `native` (the API of simenv), `ibm` (the quantum
compute API of IBM's clients), `metrics`, `page`. Each has `routes(gateway)`.
"""
