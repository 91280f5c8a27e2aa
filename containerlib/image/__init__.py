"""Operations on whole images; knows the store, never a container."""
