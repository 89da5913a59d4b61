"""Bridges to libraries that people already use: each is imported only when asked for, and brings its library along."""
