"""The demo page, which `bird demo` serves on this machine and `space/app.py` as a Space of the hub."""
