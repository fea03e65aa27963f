"""Masks of objects in files: COCO JSON, label pictures, and the JSON that depthcli writes."""
