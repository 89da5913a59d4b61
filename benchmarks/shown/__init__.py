"""Tables and pictures of results, for the screen and for pages alike."""
