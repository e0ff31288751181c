"""Engines: one file is one engine, and its name in a suite."""

from bench.contract import plugins

__path__.extend(map(str, plugins.user_folders("engines")))
