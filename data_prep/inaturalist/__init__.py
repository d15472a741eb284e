"""iNaturalist 2018: from the official JSONs and images to a smaller copy with a manifest."""
