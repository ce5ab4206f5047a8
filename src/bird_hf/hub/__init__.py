"""The files that travel into a checkpoint folder: boxes, grammar, configuration, processing, model.

They import their siblings only, so that a saved folder works with `trust_remote_code=True` where the
package is not installed.
"""
