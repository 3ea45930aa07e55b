"""GGUF control vectors, as repeng writes them."""

from pathlib import Path


def write_gguf(path: Path, directions: dict, architecture: str, family: str = "llama") -> Path:
    """A file as `ControlVector.export_gguf` of repeng writes it."""
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string(f"{architecture}.model_hint", family)
    writer.add_uint32(f"{architecture}.layer_count", len(directions))
    for layer, direction in directions.items():
        writer.add_tensor(f"direction.{layer}", direction)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
