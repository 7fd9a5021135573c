"""What the paper adds: zoom conditioning, box history, the zoom loop."""
