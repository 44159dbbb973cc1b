"""`filter-redirector`: frames out of the chain to `outdev`, or from `indev` into it.

* `redirector.Redirector` - the core; `config.RedirectorConfig` - options.
"""
