#!/usr/bin/env python3
"""The old name of a tool in a folder below, kept for one release."""
from moved import run

run(__file__)
