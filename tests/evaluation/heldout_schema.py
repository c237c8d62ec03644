"""FineVision's columns, as far as evaluation reads them."""

import pyarrow as pa

SCHEMA = pa.schema(
    {
        "images": pa.list_(pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        "texts": pa.list_(pa.struct({"user": pa.string(), "assistant": pa.string()})),
        "source": pa.string(),
    }
)
