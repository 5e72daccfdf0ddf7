"""Widgets that Streamlit does not provide: the image viewer, the attention overlay, the cards."""
