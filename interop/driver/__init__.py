"""Drives libSQL's released SDKs against a real `highwater serve`. Started by interop/run."""
