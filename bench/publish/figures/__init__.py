"""Figures of records as Vega-Lite specifications and as SVG."""
