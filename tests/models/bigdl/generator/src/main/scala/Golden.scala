import java.io.{ByteArrayOutputStream, File, FileOutputStream}
import java.nio.{ByteBuffer, ByteOrder}
import java.util.zip.{ZipEntry, ZipOutputStream}

import scala.collection.mutable.ArrayBuffer

import com.intel.analytics.bigdl.nn.Module
import com.intel.analytics.bigdl.nn.abstractnn.{AbstractModule, Activity}
import com.intel.analytics.bigdl.numeric.NumericFloat
import com.intel.analytics.bigdl.tensor.Tensor
import com.intel.analytics.bigdl.utils.{RandomGenerator, T, Table}

/** Saves a model with a random input and the library's own evaluation of it: `NAME.model` and `NAME.npz`. */
class Golden(directory: File) {
  type Net = AbstractModule[_ <: Activity, _ <: Activity, Float]

  val failures = new ArrayBuffer[String]

  /** `reloaded`: what the library computes after loading its own file counts, not what the saved module computes. */
  def apply(name: String, net: => Net, input: => Activity, split: Boolean = false, reloaded: Boolean = false): Unit = {
    try {
      RandomGenerator.RNG.setSeed(name.hashCode.abs)
      val module = net.asInstanceOf[AbstractModule[Activity, Activity, Float]]
      randomiseParameters(module)
      module.evaluate()
      val example = input
      val path = new File(directory, name + ".model").getPath
      module.saveModule(path, if (split) path.replace(".model", ".bin") else null, true)
      val model = if (reloaded) {
        Module.loadModule[Float](path, if (split) path.replace(".model", ".bin") else null).evaluate()
      } else {
        module
      }
      val output = flatten(model.forward(clone(example))).map(_.clone())
      write(new File(directory, name + ".npz"), flatten(example), output)
    } catch {
      case error: Throwable =>
        failures += name
        println(s"$name: failed: ${root(error)}")
        Seq(".model", ".npz", ".bin").foreach(end => new File(directory, name + end).delete())
    }
    new File(directory, s".$name.model.crc").delete()
    new File(directory, s".$name.bin.crc").delete()
  }

  private def root(error: Throwable): Throwable = if (error.getCause == null) error else root(error.getCause)

  private def randomiseParameters(module: AbstractModule[Activity, Activity, Float]): Unit = {
    val parameters = module.parameters()
    if (parameters != null && parameters._1 != null) {
      parameters._1.foreach(p => if (p.getTensorType.toString.contains("Dense")) p.randn(0, 0.5))
    }
    val extra = module.getExtraParameter()
    if (extra != null) extra.foreach(tensor => tensor.rand(0.3, 1.5))
  }

  private def clone(activity: Activity): Activity = activity match {
    case table: Table =>
      val copy = T()
      (1 to table.length()).foreach(i => copy(i) = clone(table[Activity](i)))
      copy
    case tensor => tensor.asInstanceOf[Tensor[Float]].clone()
  }

  private def flatten(activity: Activity): Seq[Tensor[Float]] = activity match {
    case table: Table => (1 to table.length()).flatMap(i => flatten(table[Activity](i)))
    case tensor => Seq(tensor.asInstanceOf[Tensor[Float]])
  }

  private def values(tensor: Tensor[Float]): Array[Float] =
    tensor.contiguous().storage().array().slice(tensor.contiguous().storageOffset() - 1,
      tensor.contiguous().storageOffset() - 1 + tensor.nElement())

  private def write(file: File, inputs: Seq[Tensor[Float]], outputs: Seq[Tensor[Float]]): Unit = {
    val zip = new ZipOutputStream(new FileOutputStream(file))
    inputs.zipWithIndex.foreach { case (tensor, i) => entry(zip, s"input$i.npy", tensor) }
    outputs.zipWithIndex.foreach { case (tensor, i) => entry(zip, s"output$i.npy", tensor) }
    zip.close()
  }

  private def entry(zip: ZipOutputStream, name: String, tensor: Tensor[Float]): Unit = {
    val shape = if (tensor.isScalar) "()" else tensor.size().mkString("(", ",", ",)")
    val text = s"{'descr': '<f4', 'fortran_order': False, 'shape': $shape, }"
    val header = text + " " * (63 - (text.length + 10) % 64) + "\n"
    val bytes = ByteBuffer.allocate(10 + header.length + 4 * tensor.nElement()).order(ByteOrder.LITTLE_ENDIAN)
    bytes.put(0x93.toByte).put("NUMPY".getBytes("ascii")).put(1.toByte).put(0.toByte)
    bytes.putShort(header.length.toShort).put(header.getBytes("ascii"))
    values(tensor).foreach(value => bytes.putFloat(value))
    val item = new ZipEntry(name)
    item.setTime(0)
    zip.putNextEntry(item)
    zip.write(bytes.array())
    zip.closeEntry()
  }
}
