"""Data and environment copied to a node's own disk: once a node, checked, then found there.

Standard library only, and any Python from 3.9 on: a node runs it before the environment is there.
"""
