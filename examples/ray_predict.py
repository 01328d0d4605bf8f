"""Classify photographs with Ray Data, on one machine or a cluster: files, or a column of Parquet files.

    pip install "keras_convmixer[ray]"
    python examples/ray_predict.py exported/model.tflite photos/ predictions/
    python examples/ray_predict.py exported/saved_model photos.parquet predictions/ --column image

Every worker loads the model once and takes batches as they come. `predictions/` gets Parquet files with the columns
path (or those of the input), classes, probabilities and error.
"""

import argparse

import ray

from keras_convmixer.inference.prediction import Predictor


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an exported file, a model folder or a name")
    parser.add_argument("images", help="a folder of images, or Parquet files")
    parser.add_argument("out", help="folder for Parquet files")
    parser.add_argument("--column", help="images is Parquet, and this column holds the images' bytes")
    parser.add_argument("--workers", type=int, default=1, help="how many models work side by side (default: 1)")
    parser.add_argument("--batch-size", type=int, default=32)
    arguments = parser.parse_args()
    read = ray.data.read_parquet if arguments.column else ray.data.read_binary_files
    images = read(arguments.images) if arguments.column else read(arguments.images, include_paths=True)
    images.map_batches(
        Predictor,
        fn_constructor_args=(arguments.model,),
        fn_constructor_kwargs={"column": arguments.column or "bytes"},
        batch_size=arguments.batch_size,
        concurrency=arguments.workers,
    ).write_parquet(arguments.out)


if __name__ == "__main__":
    main()
