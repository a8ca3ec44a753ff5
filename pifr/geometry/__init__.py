"""Template, camera, correspondence, rendering: everything between an image, the face's surface and its UV square."""
