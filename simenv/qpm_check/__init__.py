"""The conformance kit for QPM plugins: does a plugin do what a host such as QFw relies on?

It knows the contract and nothing else: whatever is checked is driven through its own methods, in
this process (`objects`) or behind a stand-in for DEFw (`standin`). A row of `checks` is one promise
of the contract with a function that shows it; `runner.check` makes verdicts of them. Useful to
authors of plugins that have nothing to do with simenv.
"""

from __future__ import annotations

RPC_TIMEOUT_S = 30.0  # of the stand-in's calls to clients; a real host's is 300
