import com.intel.analytics.bigdl.Module
import com.intel.analytics.bigdl.nn._
import com.intel.analytics.bigdl.nn.abstractnn.{AbstractModule, DataFormat}
import com.intel.analytics.bigdl.nn.{keras => k}
import com.intel.analytics.bigdl.numeric.NumericFloat
import com.intel.analytics.bigdl.tensor.Tensor
import com.intel.analytics.bigdl.utils.{Shape, Table}

import Layers.{ids, rand, table}

/** More deep combinations, as people build them. */
object Combinations {
  private type Merge = AbstractModule[Table, Tensor[Float], Float]
  private type Step = AbstractModule[Tensor[Float], Tensor[Float], Float]
  private def join(dimension: Int): Merge = JoinTable[Float](dimension, 0).asInstanceOf[Merge]

  private def dense(planes: Int, growth: Int): Sequential[Float] = Sequential().add(ConcatTable().add(Identity())
    .add(Sequential().add(SpatialBatchNormalization(planes)).add(ReLU()).add(SpatialConvolution(planes, growth, 3, 3, 1, 1, 1, 1)))).add(JoinTable(2, 4))

  private def mobile(in: Int, out: Int, stride: Int): Sequential[Float] = Sequential()
    .add(SpatialConvolution(in, in, 3, 3, stride, stride, 1, 1, in, withBias = false)).add(SpatialBatchNormalization(in)).add(ReLU6())
    .add(SpatialConvolution(in, out, 1, 1, withBias = false)).add(SpatialBatchNormalization(out)).add(ReLU6())

  private def fire(in: Int): Sequential[Float] = Sequential().add(SpatialConvolution(in, 2, 1, 1)).add(ReLU(true))
    .add(Concat(2).add(Sequential().add(SpatialConvolution(2, 3, 1, 1)).add(ReLU(true))).add(Sequential().add(SpatialConvolution(2, 3, 3, 3, 1, 1, 1, 1)).add(ReLU(true))))

  private def squeezeExcite(planes: Int): Sequential[Float] = Sequential().add(ConcatTable().add(Identity())
    .add(Sequential().add(SpatialAveragePooling(1, 1, globalPooling = true)).add(View(planes)).add(Linear(planes, 2)).add(ReLU()).add(Linear(2, planes)).add(Sigmoid()).add(Reshape(Array(planes, 1, 1))))).add(CMulTable())

  def build(g: Golden): Unit = {
    g("deep_densenet", Sequential().add(dense(3, 2)).add(dense(5, 2)).add(dense(7, 2)).add(SpatialAveragePooling(6, 6)).add(View(9)).add(Linear(9, 4)).add(LogSoftMax()), rand(2, 3, 6, 6))
    g("deep_mobilenet", Sequential().add(mobile(3, 4, 2)).add(mobile(4, 6, 1)).add(SpatialAveragePooling(4, 4)).add(Squeeze(Array(3, 4), false)).add(Linear(6, 3)).add(SoftMax()), rand(2, 3, 8, 8))
    g("deep_squeezenet", Sequential().add(SpatialConvolution(3, 4, 3, 3, 2, 2)).add(ReLU(true)).add(SpatialMaxPooling(3, 3, 2, 2).ceil()).add(fire(4)).add(fire(6)).add(Dropout(0.5)).add(SpatialConvolution(6, 5, 1, 1)).add(ReLU(true)).add(SpatialAveragePooling(4, 4, 1, 1)).add(View(5)).add(LogSoftMax()), rand(2, 3, 18, 18))
    g("deep_alexnet", Sequential().add(SpatialConvolution(3, 4, 5, 5, 2, 2, 1, 1)).add(ReLU(true)).add(SpatialCrossMapLRN(5, 0.0001, 0.75)).add(SpatialMaxPooling(3, 3, 2, 2)).add(SpatialConvolution(4, 6, 3, 3, 1, 1, 1, 1, 2)).add(ReLU(true)).add(SpatialMaxPooling(2, 2, 2, 2)).add(View(6 * 2 * 2)).add(Linear(24, 8)).add(ReLU(true)).add(Dropout(0.5)).add(Linear(8, 5)).add(LogSoftMax()), rand(2, 3, 20, 20))
    g("deep_vgg", Sequential().add(SpatialConvolution(3, 4, 3, 3, 1, 1, 1, 1)).add(SpatialBatchNormalization(4, 1e-3)).add(ReLU(true)).add(Dropout(0.3)).add(SpatialConvolution(4, 4, 3, 3, 1, 1, 1, 1)).add(ReLU(true)).add(SpatialMaxPooling(2, 2, 2, 2).ceil()).add(View(36)).add(Linear(36, 8)).add(BatchNormalization(8)).add(ReLU(true)).add(Linear(8, 4)).add(LogSoftMax()), rand(2, 3, 6, 6))
    g("deep_squeeze_excite", Sequential().add(SpatialConvolution(3, 4, 3, 3)).add(squeezeExcite(4)).add(Mean(3)).add(Mean(3)).add(Linear(4, 2)), rand(2, 3, 6, 6))
    g("deep_unet", { val in = Input(); val c = ReLU().inputs(SpatialConvolution(3, 4, 3, 3, 1, 1, 1, 1).inputs(in)); val p = SpatialMaxPooling(2, 2, 2, 2).inputs(c); val d = ReLU().inputs(SpatialConvolution(4, 6, 3, 3, 1, 1, 1, 1).inputs(p)); val u = SpatialFullConvolution(6, 4, 2, 2, 2, 2).inputs(d); val j = JoinTable(2, 4).inputs(c, u); val o = Sigmoid().inputs(SpatialConvolution(8, 1, 1, 1).inputs(j)); Graph(in, o) }, rand(2, 3, 8, 8))
    g("deep_unet_upsampling", Sequential().add(SpatialConvolution(3, 4, 3, 3, 2, 2, -1, -1)).add(ELU()).add(UpSampling2D(Array(2, 2))).add(SpatialZeroPadding(1, 1, 1, 1)).add(SpatialConvolution(4, 2, 3, 3)).add(ResizeBilinear(12, 10, false).asInstanceOf[Module[Float]]).add(SoftMax()), rand(2, 3, 8, 8))
    g("deep_video", Sequential().add(TimeDistributed(Sequential().add(SpatialConvolution(2, 3, 3, 3)).add(ReLU()).add(SpatialMaxPooling(2, 2, 2, 2)).asInstanceOf[Step])).add(Reshape(Array(4, 12))).add(Recurrent().add(LSTM(12, 5))).add(Select(2, -1)).add(Linear(5, 2)).add(SoftMax()), rand(2, 4, 2, 6, 6))
    g("deep_speech", Sequential().add(Transpose(Array((2, 3)))).add(TemporalConvolution(6, 8, 3, 2)).add(Clamp(0, 20)).add(BiRecurrent(join(3)).add(RnnCell(8, 4, Tanh()))).add(BiRecurrent().add(GRU(8, 4))).add(TimeDistributed(Linear(4, 5))).add(TimeDistributed(LogSoftMax().asInstanceOf[Step])), rand(2, 6, 13))
    g("deep_rnn_graph", { val in = Input(); val e = LookupTable(15, 4).inputs(in); val f = Recurrent().add(LSTM(4, 3)).inputs(e); val b = Recurrent().add(GRU(4, 3)).inputs(Reverse(2).inputs(e)); val l = Select(2, -1).inputs(f); val m = Select(2, -1).inputs(b); val c = JoinTable(2, 2).inputs(l, m); Graph(in, LogSoftMax().inputs(Linear(6, 4).inputs(c))) }, ids(15, 3, 6))
    g("deep_stacked_lstm", Sequential().add(Recurrent().add(LSTM(4, 5))).add(Recurrent().add(LSTMPeephole(5, 4))).add(Recurrent().add(RnnCell(4, 3, Tanh()))).add(TimeDistributed(Linear(3, 2))).add(Mean(2)).add(SoftMax()), rand(3, 6, 4))
    g("deep_text_inception", Sequential().add(LookupTable(20, 6)).add(Concat(2).add(Sequential().add(TemporalConvolution(6, 3, 2)).add(ReLU()).add(Max(2))).add(Sequential().add(TemporalConvolution(6, 4, 3)).add(ReLU()).add(Max(2))).add(Sequential().add(TemporalConvolution(6, 2, 4)).add(Tanh()).add(Mean(2)))).add(Linear(9, 3)).add(LogSoftMax()), ids(20, 3, 8))
    g("deep_wide_and_deep", Sequential().add(ConcatTable().add(Sequential().add(Narrow(2, 1, 3)).add(Linear(3, 2))).add(Sequential().add(Narrow(2, 4, 5)).add(Linear(5, 6)).add(ReLU()).add(Linear(6, 2)))).add(CAddTable()).add(LogSoftMax()), rand(3, 8))
    g("deep_attention", Sequential().add(ConcatTable().add(Identity()).add(Sequential().add(Mean(2)).add(Linear(4, 5)).add(SoftMax()).add(Unsqueeze(2)))).add(ConcatTable().add(SelectTable(2)).add(SelectTable(1))).add(MM()).add(Squeeze(2)).add(Linear(4, 2)), rand(3, 5, 4))
    g("deep_tables", Sequential().add(ConcatTable().add(Linear(4, 3)).add(ConcatTable().add(Linear(4, 3)).add(Tanh()))).add(FlattenTable()).add(NarrowTable(1, 2)).add(ParallelTable().add(Exp()).add(Abs())).add(JoinTable(1, 1)).add(Linear(6, 2)), rand(2, 4))
    g("deep_split_and_merge", Sequential().add(SplitTable(2, 3)).add(MapTable(Sequential().add(Linear(5, 3)).add(Tanh()))).add(CMaxTable()).add(Linear(3, 2)), rand(3, 4, 5))
    g("deep_nhwc", Sequential().add(SpatialConvolution(3, 4, 3, 3, 1, 1, -1, -1, format = DataFormat.NHWC)).add(SpatialBatchNormalization(4, dataFormat = DataFormat.NHWC)).add(ReLU()).add(SpatialMaxPooling(2, 2, 2, 2, format = DataFormat.NHWC)).add(SpatialAveragePooling(3, 4, format = DataFormat.NHWC)).add(View(4)).add(Linear(4, 2)), rand(2, 8, 6, 3))
    g("deep_reductions", Sequential().add(Transpose(Array((2, 4)))).add(Sum(2, -1, true)).add(Max(2)).add(CAdd(Array(1, 3))).add(CMul(Array(1, 3))).add(Power(2.0)).add(Scale(Array(1, 3))), rand(2, 3, 4, 5))
    g("deep_split_rnn", Sequential().add(LookupTable(9, 4)).add(Recurrent().add(LSTM(4, 3))).add(Select(2, -1)).add(BatchNormalization(3)).add(Linear(3, 2)), ids(9, 2, 5), split = true)
    g("deep_split_graph", { val in = Input(); val a = Linear(4, 3).inputs(in); val b = Linear(4, 3).inputs(in); Graph(in, Sigmoid().inputs(CMulTable().inputs(a, b))) }, rand(2, 4), split = true)
    g("deep_graph_in_sequential", Sequential().add(Linear(4, 5)).add({ val i = Input(); Graph(i, Array(Tanh().inputs(i), Sigmoid().inputs(i))) }).add(CMulTable()).add(Linear(5, 2)), rand(3, 4))
    g("deep_graph_of_graphs", { val a = Input(); val b = Input(); val two = { val i = Input(); val j = Input(); Graph(Array(i, j), CAddTable().inputs(Linear(4, 3).inputs(i), Linear(5, 3).inputs(j))) }; val r = two.inputs(a, b); Graph(Array(a, b), Array(Tanh().inputs(r), r)) }, table(rand(2, 4), rand(2, 5)))
    g("deep_keras_stacked", k.Sequential[Float]().add(k.LSTM[Float](5, returnSequences = true, inputShape = Shape(6, 4))).add(k.Bidirectional[Float](k.GRU[Float](3, returnSequences = true))).add(k.TimeDistributed[Float](k.Dense[Float](4, activation = "tanh"))).add(k.GlobalMaxPooling1D[Float]()).add(k.Dense[Float](2, activation = "softmax")), rand(2, 6, 4))
    g("deep_keras_inception", { val in = k.Input[Float](inputShape = Shape(3, 6, 6)); val a = k.Convolution2D[Float](4, 1, 1, activation = "relu").inputs(in); val b = k.Convolution2D[Float](4, 3, 3, activation = "relu", borderMode = "same").inputs(in); val m = k.Merge.merge[Float](List(a, b), "concat", 1); val p = k.GlobalAveragePooling2D[Float]().inputs(m); k.Model[Float](in, k.Dense[Float](3, activation = "softmax").inputs(p)) }, rand(2, 3, 6, 6))
    g("deep_keras_residual_bn", { val in = k.Input[Float](inputShape = Shape(4, 6, 6)); val c = k.Convolution2D[Float](4, 3, 3, borderMode = "same").inputs(in); val n = k.BatchNormalization[Float]().inputs(c); val r = k.Activation[Float]("relu").inputs(n); val s = k.Merge.merge[Float](List(r, in), "sum"); val f = k.Flatten[Float]().inputs(k.MaxPooling2D[Float]().inputs(s)); k.Model[Float](in, k.Dense[Float](3).inputs(f)) }, rand(2, 4, 6, 6))
    g("deep_keras_wrapper", k.Sequential[Float]().add(new k.KerasLayerWrapper[Float](Sequential[Float]().add(Linear[Float](5, 4)).add(Tanh[Float]()).asInstanceOf[Module[Float]], Shape(5))).add(k.Dense[Float](3)), rand(2, 5))
    g("deep_keras_conv1d", k.Sequential[Float]().add(k.Convolution1D[Float](6, 3, activation = "relu", inputShape = Shape(10, 4))).add(k.MaxPooling1D[Float](2)).add(k.Dropout[Float](0.2)).add(k.Convolution1D[Float](5, 2)).add(k.GlobalAveragePooling1D[Float]()).add(k.Dense[Float](2, activation = "sigmoid")), rand(2, 10, 4))
    g("deep_convlstm", Sequential().add(Recurrent().add(ConvLSTMPeephole(2, 3, 3, 3, 1))).add(Select(2, -1)).add(SpatialConvolution(3, 2, 1, 1)).add(Sigmoid()), rand(2, 3, 2, 5, 5))
    g("deep_volumetric", Sequential().add(VolumetricConvolution(2, 3, 2, 3, 3, 1, 1, 1, 0, 1, 1)).add(ReLU()).add(VolumetricAveragePooling(2, 2, 2, 2, 2, 2)).add(InferReshape(Array(0, -1))).add(Linear(12, 3)), rand(2, 2, 4, 4, 4))
    g("act_softmax_3d", SoftMax(), rand(3, 4, 5)); g("act_prelu_3d", TimeDistributed(PReLU(5).asInstanceOf[Step]), rand(2, 3, 5)); g("act_time_log_softmax", TimeDistributed(LogSoftMax().asInstanceOf[Step]), rand(2, 3, 5))
    g("block_attention", new Attention(8, 2, 0.1f), table(rand(2, 4, 8), rand(2, 4, 8), rand(2, 1, 1, 4)))
    g("block_feed_forward", new FeedForwardNetwork(6, 10, 0.1f), rand(2, 4, 6))
    g("block_transformer", Transformer(20, 8, 2, 12, 2, 0.1f, 0.1f, 0.1f), ids(19, 2, 5))
  }
}
