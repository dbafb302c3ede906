"""Language models that write about regions: asked one region at a time, held to a schema, checked against facts."""
