"""Widgets that Streamlit does not have: viewer, overlay, cards."""
