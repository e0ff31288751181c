"""Methods: one file is one compression method, and its name in a recipe."""

from bench.contract import plugins

__path__.extend(map(str, plugins.user_folders("methods")))
