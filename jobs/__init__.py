"""The half of samebits that runs inside the image. It never imports `launcher`."""
