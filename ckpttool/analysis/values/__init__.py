"""Values: what there is to say of them, and how two variables differ."""
