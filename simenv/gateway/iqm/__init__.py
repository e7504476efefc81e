"""IQM's server API over an environment: programs of iqm-client and QRMI run here unchanged.

`endpoints`: the routes and the forms of their answers; `architecture`: devices in the form of that
API, pure; `circuits`: jobs of circuits, run in the job processes of `simenv.gateway.ibm`.
"""
