"""Latency of Larq Compute Engine on a ResNet-18 with binary 3×3 convolutions, 224×224, one picture.

Runs in an environment of its own, whose packages do not go with this project's:

    python -m venv ENV && ENV/bin/pip install larq larq-compute-engine 'tensorflow-cpu==2.16.*' 'tf_keras==2.16.*'
    ENV/bin/python benchmarks/shipping/larq_latency.py
"""

import argparse
import json
import os
import time

os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}

import larq as lq
import larq_compute_engine as lce
import numpy as np
import tensorflow as tf
from larq_compute_engine.tflite.python.interpreter import Interpreter


def resnet18() -> tf.keras.Model:
    """The layers of `bnnlight.backbones.ResNet18`: a shortcut round each binary convolution."""
    keras = tf.keras.layers
    picture = x = tf.keras.Input((224, 224, 3), batch_size=1)
    x = keras.Conv2D(64, 7, 2, "same", use_bias=False)(x)
    x = keras.ReLU()(keras.BatchNormalization()(x))
    x = keras.MaxPool2D(3, 2, "same")(x)
    for stage in range(4):
        for unit in range(4):
            channels, stride = 64 * 2**stage, 2 if stage and not unit else 1
            way = x
            if stride == 2:
                way = keras.Conv2D(channels, 1, use_bias=False)(keras.AvgPool2D(2)(x))
                way = keras.BatchNormalization()(way)
            x = keras.BatchNormalization()(x)
            x = lq.layers.QuantConv2D(
                channels,
                3,
                stride,
                "same",
                # zeros, as here, have no fast kernel in Larq
                pad_values=1.0,
                input_quantizer="ste_sign",
                kernel_quantizer="ste_sign",
                kernel_constraint="weight_clip",
                use_bias=False,
            )(x)
            x = keras.Add()([keras.PReLU(shared_axes=[1, 2])(keras.BatchNormalization()(x)), way])
    x = keras.GlobalAveragePooling2D()(keras.BatchNormalization()(x))
    return tf.keras.Model(picture, keras.Dense(1000)(x))


def main() -> None:
    """Prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    flatbuffer = lce.convert_keras_model(resnet18())
    interpreter = Interpreter(flatbuffer, num_threads=args.threads)
    images = np.random.default_rng(0).normal(size=(1, 224, 224, 3)).astype(np.float32)
    times = []
    for _ in range(args.runs + 2):
        start = time.perf_counter()
        interpreter.predict(images)
        times.append(time.perf_counter() - start)
    record = {
        "num_threads": args.threads,
        "median_ms": 1e3 * float(np.median(times[2:])),
        "file_bytes": len(flatbuffer),
        "versions": {"larq_compute_engine": lce.__version__, "tensorflow": tf.__version__},
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
