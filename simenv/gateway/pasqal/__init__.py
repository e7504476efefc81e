"""Pasqal's cloud API over an environment: programs of pulser-pasqal, pasqal-cloud and QRMI run here
unchanged.

`endpoints`: the routes and the forms of their answers; `batches`: batches and their jobs, as the
service stores them; `requests`: what the process of a user reads of requests and writes of results.
"""
