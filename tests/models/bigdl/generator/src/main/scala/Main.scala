import java.io.File

import com.intel.analytics.bigdl.utils.Engine
import org.apache.log4j.{Level, Logger}

/** Writes all golden files into the directory given. */
object Main {
  def main(arguments: Array[String]): Unit = {
    Logger.getRootLogger.setLevel(Level.ERROR)
    Engine.init
    val directory = new File(arguments(0))
    directory.mkdirs()
    val golden = new Golden(directory)
    Layers.activations(golden)
    Layers.arithmetics(golden)
    Layers.shapes(golden)
    Layers.convolutions(golden)
    Layers.pooling(golden)
    Layers.normalisation(golden)
    Networks.recurrent(golden)
    Networks.networks(golden)
    Networks.int8(golden)
    Keras.layers(golden)
    Combinations.build(golden)
    println(s"failed: ${golden.failures.mkString(", ")}")
  }
}
