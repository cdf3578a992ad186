"""Using an output, finished or growing: query it with SQL, look at its faces, score it."""
