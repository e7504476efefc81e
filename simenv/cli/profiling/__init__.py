"""`simenv profile`: time of an application by stage, with advice."""
