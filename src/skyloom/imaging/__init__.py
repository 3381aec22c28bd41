"""Operations on images: pure functions from `Image` to `Image`."""
