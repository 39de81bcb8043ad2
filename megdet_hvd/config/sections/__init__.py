"""The groups of settings that a configuration consists of; `schema.py` puts them together."""
