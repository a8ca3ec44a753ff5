"""Builds the shipped geometry from its sources (`pifr train assets`): face model, template and texture model.

1. `face_model`: ICT Face Model Light reduced to what rendering needs (face, head and neck, sockets, eyeballs), in
   millimetres, modes quantised to int8.
2. `links`: MediaPipe Face Mesh run on renders of both meshes ties landmarks to surface points.
3. `template`: MeshMonk's mesh warped onto the mean of the face model (thin plates on the links, then nearest points
   with a smooth displacement), symmetric to the bit, then unwrapped to the unit square without a flipped triangle.
4. `texture_model`: principal components of the UV textures that `pifr train render` wrote.

`build` does them all. The paper warps the same mesh onto Deep3DFace's template and unwraps it conformally (sections
3.6.2 and 3.6.5).
"""
