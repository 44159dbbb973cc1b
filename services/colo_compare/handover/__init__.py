"""Flows that are handed over to other workers, while everything keeps running.

* `protocol` - who hands over which flows when, and what waits meanwhile.
* `state` - the state of a flow as bytes.
"""
