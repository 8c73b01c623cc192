import com.intel.analytics.bigdl.nn._
import com.intel.analytics.bigdl.nn.Graph.ModuleNode
import com.intel.analytics.bigdl.numeric.NumericFloat
import com.intel.analytics.bigdl.tensor.Tensor
import com.intel.analytics.bigdl.utils.Table

import Layers.{ids, positive, rand, table}

/** Recurrent layers, graphs and deep combinations. */
object Networks {
  def recurrent(g: Golden): Unit = {
    g("rnn_simple", Recurrent().add(RnnCell(4, 3, Tanh())), rand(2, 5, 4)); g("rnn_simple_relu", Recurrent().add(RnnCell(4, 3, ReLU(), false, false)), rand(2, 5, 4))
    g("rnn_lstm", Recurrent().add(LSTM(4, 3)), rand(2, 5, 4)); g("rnn_lstm_dropout", Recurrent().add(LSTM(4, 3, 1e-9)), rand(2, 5, 4))
    g("rnn_lstm_activation", Recurrent().add(LSTM(4, 3, 0, ReLU(), HardSigmoid())), rand(2, 5, 4))
    g("rnn_peephole", Recurrent().add(LSTMPeephole(4, 3)), rand(2, 5, 4)); g("rnn_peephole_dropout", Recurrent().add(LSTMPeephole(4, 3, 1e-9)), rand(2, 5, 4))
    g("rnn_gru", Recurrent().add(GRU(4, 3)), rand(2, 5, 4)); g("rnn_gru_dropout", Recurrent().add(GRU(4, 3, 1e-9)), rand(2, 5, 4))
    g("rnn_gru_activation", Recurrent().add(GRU(4, 3, 0, SoftSign(), HardSigmoid())), rand(2, 5, 4))
    g("rnn_conv_lstm", Recurrent().add(ConvLSTMPeephole(2, 3, 3, 3, 1)), rand(2, 3, 2, 4, 5)); g("rnn_conv_lstm_plain", Recurrent().add(ConvLSTMPeephole(2, 3, 3, 3, 1, withPeephole = false)), rand(2, 3, 2, 4, 5))
    g("rnn_conv_lstm_3d", Recurrent().add(ConvLSTMPeephole3D(2, 3, 3, 3, 1)), rand(2, 3, 2, 3, 4, 3))
    g("rnn_batch_norm", Recurrent(BatchNormParams()).add(LSTM(4, 3)), rand(2, 5, 4)); g("rnn_mask_zero", Recurrent(maskZero = true).add(LSTM(4, 3)), { val t = rand(2, 5, 4); t.select(1, 2).narrow(1, 4, 2).zero(); t }, reloaded = true)
    g("rnn_bi_add", BiRecurrent().add(LSTM(4, 3)), rand(2, 5, 4)); g("rnn_bi_concat", BiRecurrent(JoinTable(3, 0).asInstanceOf[com.intel.analytics.bigdl.nn.abstractnn.AbstractModule[Table, Tensor[Float], Float]]).add(GRU(4, 3)), rand(2, 5, 4))
    g("rnn_bi_split", BiRecurrent(isSplitInput = true).add(LSTM(2, 3)), rand(2, 5, 4)); g("rnn_bi_rnn", BiRecurrent().add(RnnCell(4, 3, Tanh())), rand(2, 5, 4))
    g("rnn_decoder", RecurrentDecoder(4).add(LSTM(3, 3)), rand(2, 3)); g("rnn_multi_decoder", RecurrentDecoder(4).add(MultiRNNCell(Array(LSTM(3, 3), LSTM(3, 3)).asInstanceOf[Array[Cell[Float]]])), rand(2, 3))
    g("rnn_time_distributed", TimeDistributed(Linear(4, 3)), rand(2, 5, 4)); g("rnn_time_distributed_conv", TimeDistributed(Sequential().add(SpatialConvolution(2, 3, 3, 3)).add(ReLU()).asInstanceOf[com.intel.analytics.bigdl.nn.abstractnn.AbstractModule[Tensor[Float], Tensor[Float], Float]]), rand(2, 3, 2, 4, 5))
    g("rnn_time_distributed_mask", TimeDistributed(Linear(4, 3), maskZero = true), { val t = rand(2, 5, 4); t.select(1, 2).narrow(1, 4, 2).zero(); t })
    g("rnn_stacked", Sequential().add(Recurrent().add(LSTM(4, 3))).add(Recurrent().add(GRU(3, 5))).add(Select(2, -1)).add(Linear(5, 2)).add(LogSoftMax()), rand(2, 5, 4))
    g("rnn_text", Sequential().add(LookupTable(20, 6)).add(Recurrent().add(LSTM(6, 4))).add(Select(2, -1)).add(Linear(4, 3)).add(SoftMax()), ids(20, 3, 7))
    g("rnn_text_bi", Sequential().add(LookupTable(20, 6)).add(BiRecurrent(JoinTable(3, 0).asInstanceOf[com.intel.analytics.bigdl.nn.abstractnn.AbstractModule[Table, Tensor[Float], Float]]).add(GRU(6, 4))).add(TimeDistributed(Linear(8, 3))).add(Mean(2)).add(LogSoftMax()), ids(20, 3, 7))
    g("rnn_text_cnn", Sequential().add(LookupTable(20, 6)).add(TemporalConvolution(6, 8, 3)).add(ReLU()).add(TemporalMaxPooling(5)).add(Squeeze(2)).add(Linear(8, 3)).add(LogSoftMax()), ids(20, 3, 7))
  }

  private def convBn(in: Int, out: Int, k: Int, stride: Int = 1): Sequential[Float] =
    Sequential[Float]().add(SpatialConvolution(in, out, k, k, stride, stride, k / 2, k / 2, withBias = false)).add(SpatialBatchNormalization(out))

  private def residual(in: Int, out: Int, stride: Int): Sequential[Float] = {
    val shortcut = if (in == out && stride == 1) Identity[Float]() else convBn(in, out, 1, stride)
    Sequential[Float]().add(ConcatTable().add(convBn(in, out, 3, stride).add(ReLU(true)).add(convBn(out, out, 3))).add(shortcut)).add(CAddTable(true)).add(ReLU(true))
  }

  private def inception(in: Int): Concat[Float] = Concat[Float](2)
    .add(Sequential().add(SpatialConvolution(in, 4, 1, 1)).add(ReLU(true)))
    .add(Sequential().add(SpatialConvolution(in, 3, 1, 1)).add(ReLU(true)).add(SpatialConvolution(3, 5, 3, 3, 1, 1, 1, 1)).add(ReLU(true)))
    .add(Sequential().add(SpatialMaxPooling(3, 3, 1, 1, 1, 1).ceil()).add(SpatialConvolution(in, 2, 1, 1)).add(ReLU(true)))

  private def branch(node: ModuleNode[Float]): ModuleNode[Float] = SpatialBatchNormalization[Float](4).inputs(SpatialConvolution[Float](3, 4, 3, 3, 1, 1, 1, 1).inputs(node))

  def networks(g: Golden): Unit = {
    def lenet = Sequential().add(Reshape(Array(1, 12, 12))).add(SpatialConvolution(1, 4, 3, 3)).add(Tanh()).add(SpatialMaxPooling(2, 2, 2, 2))
      .add(SpatialConvolution(4, 6, 2, 2)).add(Tanh()).add(Reshape(Array(6 * 4 * 4))).add(Linear(96, 10)).add(LogSoftMax())
    g("net_lenet", lenet, rand(3, 12, 12)); g("net_lenet_split", lenet, rand(3, 12, 12), split = true)
    g("net_lenet_graph", lenet.toGraph(), rand(3, 12, 12))
    g("net_resnet", Sequential().add(convBn(3, 4, 3)).add(ReLU()).add(residual(4, 4, 1)).add(residual(4, 6, 2)).add(SpatialAveragePooling(4, 4, 1, 1)).add(View(6)).add(Linear(6, 5)).add(SoftMax()), rand(2, 3, 8, 8))
    g("net_inception", Sequential().add(SpatialConvolution(3, 4, 3, 3, 2, 2, 1, 1)).add(SpatialCrossMapLRN(5, 0.0001, 0.75)).add(inception(4)).add(inception(11)).add(SpatialAveragePooling(4, 4)).add(Dropout(0.4)).add(View(11)).add(Linear(11, 5)).add(LogSoftMax()), rand(2, 3, 8, 8))
    g("net_resnet_graph", Sequential().add(convBn(3, 4, 3)).add(residual(4, 6, 2)).add(inception(6)).toGraph(), rand(2, 3, 8, 8))
    g("net_graph", { val in = Input(); val a = branch(in); val b = ReLU().inputs(a); val c = branch(in); val d = CAddTable().inputs(b, c); val e = JoinTable(2, 4).inputs(d, a); Graph(in, SpatialAveragePooling(6, 6).inputs(e)) }, rand(2, 3, 6, 6))
    g("net_graph_two_in_two_out", { val a = Input(); val b = Input(); val l = Linear(4, 3).inputs(a); val m = Linear(5, 3).inputs(b); val s = CMulTable().inputs(l, m); Graph(Array(a, b), Array(Tanh().inputs(s), Sigmoid().inputs(l))) }, table(rand(2, 4), rand(2, 5)))
    g("net_graph_edges", { val in = Input(); val split = SplitTable(2).inputs(in); val first = Linear(4, 3).inputs((split, 2)); val second = Linear(4, 3).inputs((split, 1)); Graph(in, CSubTable().inputs(first, second)) }, rand(2, 2, 4))
    g("net_graph_nested", { val in = Input(); val i = Input(); val body = Graph(i, Linear(4, 4).inputs(Tanh().inputs(i))); val out = CAddTable().inputs(body.inputs(in), in); Graph(in, out) }, rand(2, 4))
    g("net_graph_without_input_node", { val first = Linear(4, 3).inputs(); val second = Tanh().inputs(first); Graph(first, second) }, rand(2, 4))
    g("net_graph_non_commutative", { val a = Input(); val b = Input(); val d = CDivTable().inputs(Exp().inputs(b), Exp().inputs(a)); Graph(Array(a, b), Array(d)) }, table(rand(2, 4), rand(2, 4)))
        g("net_shared_graph", { val a = Input(); val shared = Linear(4, 3).setName("twin"); val l = shared.inputs(a); Graph(a, CAddTable().inputs(l, Tanh().inputs(l))) }, rand(2, 4))
    g("net_shared_storage", { val a = Linear(4, 4); val b = Linear(4, 4); b.weight.set(a.weight); Sequential().add(a).add(Tanh()).add(b) }, rand(2, 4))
    g("net_compacted", { val m = Sequential().add(Linear(4, 5)).add(Tanh()).add(Linear(5, 3)); m.getClass.getMethod("getParameters").invoke(m); m }, rand(2, 4))
    g("net_siamese", Sequential().add(ParallelTable().add(Sequential().add(Linear(4, 3)).add(Tanh())).add(Sequential().add(Linear(5, 3)).add(Tanh()))).add(ConcatTable().add(CAddTable()).add(CosineDistance())).add(ParallelTable().add(Linear(3, 2)).add(Unsqueeze(2))).add(JoinTable(2, 2)), table(rand(2, 4), rand(2, 5)))
    g("net_ncf", Sequential().add(ConcatTable().add(Sequential().add(Select(2, 1)).add(LookupTable(10, 4))).add(Sequential().add(Select(2, 2)).add(LookupTable(12, 4)))).add(ConcatTable().add(CMulTable()).add(Sequential().add(JoinTable(2, 2)).add(Linear(8, 4)).add(ReLU()))).add(JoinTable(2, 2)).add(Linear(8, 2)).add(Sigmoid()), ids(10, 3, 2))
    g("net_autoencoder", Sequential().add(Reshape(Array(36))).add(Linear(36, 8)).add(ReLU()).add(Linear(8, 36)).add(Sigmoid()), rand(2, 1, 6, 6))
    g("net_segmentation", Sequential().add(SpatialConvolution(3, 4, 3, 3, 2, 2, 1, 1)).add(ReLU()).add(SpatialDilatedConvolution(4, 4, 3, 3, 1, 1, 2, 2, 2, 2)).add(PReLU(4)).add(SpatialFullConvolution(4, 2, 4, 4, 2, 2, 1, 1)).add(SoftMax()), rand(2, 3, 8, 8))
    g("net_attention", Sequential().add(ConcatTable().add(Transpose(Array((2, 3)))).add(Identity())).add(MM()).add(MulConstant(0.5)).add(Transpose(Array((1, 2)))).add(Transpose(Array((1, 2)))).add(Sum(2)).add(Linear(4, 2)), rand(3, 5, 4))
    g("net_deep", (1 to 60).foldLeft(Sequential[Float]())((net, _) => net.add(Linear(4, 4)).add(Tanh())), rand(2, 4))
    g("net_volumetric", Sequential().add(VolumetricConvolution(1, 2, 3, 3, 3, 1, 1, 1, 1, 1, 1)).add(ReLU()).add(VolumetricMaxPooling(2, 2, 2, 2, 2, 2)).add(View(2 * 2 * 2 * 2)).add(Linear(16, 3)).add(SoftMax()), rand(2, 1, 4, 4, 4))
    g("net_empty", Sequential(), rand(2, 4))
  }

  private def quantised(net: com.intel.analytics.bigdl.nn.abstractnn.AbstractModule[_ <: com.intel.analytics.bigdl.nn.abstractnn.Activity, _ <: com.intel.analytics.bigdl.nn.abstractnn.Activity, Float]) = {
    val module = net.asInstanceOf[com.intel.analytics.bigdl.Module[Float]]
    module.parameters()._1.foreach(_.randn(0, 0.5)) // before the weights become int8
    module.evaluate().quantize()
  }

  def int8(g: Golden): Unit = {
    g("int8_linear_wide", quantised(Sequential().add(Linear(83, 7))), rand(5, 83), reloaded = true); g("int8_conv_planes", quantised(Sequential().add(SpatialConvolution(9, 4, 3, 3, 1, 1, 1, 1))), rand(2, 9, 6, 7), reloaded = true)
    g("int8_conv_many_planes", quantised(Sequential().add(SpatialConvolution(16, 4, 3, 3, 2, 2, 1, 1))), rand(2, 16, 7, 8), reloaded = true); g("int8_conv_dilated_planes", quantised(Sequential().add(SpatialDilatedConvolution(16, 4, 3, 3, 1, 1, 1, 1, 2, 2))), rand(2, 16, 7, 8), reloaded = true)
    g("int8_conv_5x5", quantised(Sequential().add(SpatialConvolution(4, 4, 5, 5, 1, 1, 2, 2))), rand(2, 4, 7, 8), reloaded = true)
    g("int8_linear", quantised(Sequential().add(Linear(16, 5))), rand(3, 16), reloaded = true); g("int8_linear_no_bias", quantised(Sequential().add(Linear(7, 5, withBias = false))), rand(3, 7), reloaded = true)
    g("int8_linear_one", quantised(Sequential().add(Linear(8, 1))), positive(4, 8), reloaded = true)
    g("int8_conv", quantised(Sequential().add(SpatialConvolution(3, 4, 3, 3))), rand(2, 3, 6, 7), reloaded = true); g("int8_conv_pad", quantised(Sequential().add(SpatialConvolution(3, 4, 3, 3, 2, 2, 1, 1))), rand(2, 3, 6, 7), reloaded = true)
    g("int8_conv_group", quantised(Sequential().add(SpatialConvolution(4, 6, 3, 3, 1, 1, 1, 1, 2))), rand(2, 4, 6, 7), reloaded = true); g("int8_conv_same", quantised(Sequential().add(SpatialConvolution(3, 4, 3, 3, 2, 2, -1, -1))), rand(2, 3, 7, 7), reloaded = true)
    g("int8_conv_dilated", quantised(Sequential().add(SpatialDilatedConvolution(3, 4, 3, 3, 1, 1, 2, 2, 2, 2))), rand(2, 3, 6, 7), reloaded = true)
    g("int8_conv_positive", quantised(Sequential().add(SpatialConvolution(3, 4, 3, 3, 1, 1, 1, 1))), positive(2, 3, 6, 7), reloaded = true)
    g("int8_lenet", quantised(Sequential().add(Reshape(Array(1, 12, 12))).add(SpatialConvolution(1, 4, 3, 3)).add(Tanh()).add(SpatialMaxPooling(2, 2, 2, 2)).add(SpatialConvolution(4, 6, 2, 2)).add(Tanh()).add(Reshape(Array(96))).add(Linear(96, 10)).add(LogSoftMax())), rand(3, 12, 12), reloaded = true)
    g("int8_graph", quantised({ val i = Input(); val a = SpatialConvolution(3, 4, 3, 3, 1, 1, 1, 1).inputs(i); val b = ReLU().inputs(a); Graph(i, CAddTable().inputs(SpatialConvolution(4, 4, 1, 1).inputs(b), b)) }), rand(2, 3, 5, 5), reloaded = true)
    g("int8_time_distributed", quantised(Sequential().add(TimeDistributed(Linear(6, 3)))), rand(2, 5, 6), reloaded = true)
  }
}
