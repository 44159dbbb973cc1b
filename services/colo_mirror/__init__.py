"""`filter-mirror`: client frames to the guest, and a copy to the secondary.

* `mirror.Mirror` - the core; `config.MirrorConfig` - options.
"""
