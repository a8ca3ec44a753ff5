"""What commands share: folders of faces, options, progress, lazy imports."""
