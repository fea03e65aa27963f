"""Depth and a camera to points, normals and meshes, without files."""
