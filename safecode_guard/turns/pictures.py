class PictureStore:
    def __init__(self, max_bytes):
        pass
