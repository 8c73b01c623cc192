package beamserving.guard;

import java.lang.instrument.ClassFileTransformer;
import java.lang.instrument.Instrumentation;
import java.net.ServerSocket;
import java.security.ProtectionDomain;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Pattern;
import org.objectweb.asm.ClassReader;
import org.objectweb.asm.ClassVisitor;
import org.objectweb.asm.ClassWriter;
import org.objectweb.asm.MethodVisitor;
import org.objectweb.asm.Opcodes;

/** Makes Java's server sockets ask the guard, and Netty take these instead of its own native ones. */
final class Rewriting implements ClassFileTransformer {
  private static final String GUARD = "beamserving/guard/Guard";
  private static final String ADDRESS = "Ljava/net/SocketAddress;";
  private static final String[] SOCKETS = {"sun.nio.ch.ServerSocketChannelImpl", "sun.nio.ch.ServerSocketAdaptor"};
  private static final Pattern NATIVE = Pattern.compile(".*/channel/(epoll/Epoll|kqueue/KQueue|uring/I[Oo]Uring)");

  /** What was made to ask; the process must not go on when something is missing. */
  private final Set<String> rewritten = new TreeSet<>();

  static void install(Instrumentation java) throws Exception {
    Rewriting rewriting = new Rewriting();
    java.addTransformer(rewriting, true);
    java.retransformClasses(ServerSocket.class, Class.forName(SOCKETS[0]), Class.forName(SOCKETS[1]));
    Set<String> wanted = Set.of(
        "ServerSocket.accept", "ServerSocket.bind", "ServerSocketAdaptor.accept",
        "ServerSocketChannelImpl.accept", "ServerSocketChannelImpl.bind");
    if (!rewriting.rewritten.equals(wanted)) {
      throw new IllegalStateException("this Java's server sockets are unknown: of " + wanted + " there are only "
          + rewriting.rewritten);
    }
  }

  @Override
  public byte[] transform(
      ClassLoader loader, String name, Class<?> known, ProtectionDomain domain, byte[] code) {
    if (name == null) {
      return null;
    }
    boolean isNative = NATIVE.matcher(name).matches();
    boolean isSocket = name.equals("java/net/ServerSocket") || name.replace('/', '.').equals(SOCKETS[0])
        || name.replace('/', '.').equals(SOCKETS[1]);
    if (!isNative && !isSocket) {
      return null;
    }
    ClassReader reader = new ClassReader(code);
    ClassWriter writer = new ClassWriter(reader, ClassWriter.COMPUTE_MAXS);
    reader.accept(new Methods(writer, isNative ? null : name.substring(name.lastIndexOf('/') + 1)), 0);
    return writer.toByteArray();
  }

  private final class Methods extends ClassVisitor {
    private final String socket;

    Methods(ClassVisitor next, String socket) {
      super(Opcodes.ASM9, next);
      this.socket = socket;
    }

    @Override
    public MethodVisitor visitMethod(int access, String name, String type, String generic, String[] thrown) {
      MethodVisitor method = super.visitMethod(access, name, type, generic, thrown);
      if (socket == null) {
        return name.equals("isAvailable") && type.equals("()Z") ? new Unavailable(method) : method;
      }
      if (name.equals("bind") && type.startsWith("(" + ADDRESS + "I)") && !socket.endsWith("Adaptor")) {
        rewritten.add(socket + ".bind");
        return new Bind(method);
      }
      if (name.equals("accept") && type.startsWith("()") && (access & Opcodes.ACC_BRIDGE) == 0) {
        rewritten.add(socket + ".accept");
        return new Accept(method, socket.endsWith("Impl"));
      }
      return method;
    }
  }

  /** Begins by having the guard choose the address, the first argument. */
  private static final class Bind extends MethodVisitor {
    Bind(MethodVisitor next) {
      super(Opcodes.ASM9, next);
    }

    @Override
    public void visitCode() {
      super.visitCode();
      super.visitVarInsn(Opcodes.ALOAD, 1);
      super.visitMethodInsn(Opcodes.INVOKESTATIC, GUARD, "bound", "(" + ADDRESS + ")" + ADDRESS, false);
      super.visitVarInsn(Opcodes.ASTORE, 1);
    }
  }

  /** Has the guard look at what is about to be returned. */
  private static final class Accept extends MethodVisitor {
    private final String type;

    Accept(MethodVisitor next, boolean ofChannels) {
      super(Opcodes.ASM9, next);
      String server = ofChannels ? "Ljava/nio/channels/ServerSocketChannel;" : "Ljava/net/ServerSocket;";
      String connection = ofChannels ? "Ljava/nio/channels/SocketChannel;" : "Ljava/net/Socket;";
      type = "(" + server + connection + ")" + connection;
    }

    @Override
    public void visitInsn(int opcode) {
      if (opcode == Opcodes.ARETURN) {
        super.visitVarInsn(Opcodes.ALOAD, 0);
        super.visitInsn(Opcodes.SWAP);
        super.visitMethodInsn(Opcodes.INVOKESTATIC, GUARD, "accepted", type, false);
      }
      super.visitInsn(opcode);
    }
  }

  /** Answers no whatever the method says: it is written, and left where it begins. */
  private static final class Unavailable extends MethodVisitor {
    private final MethodVisitor real;

    Unavailable(MethodVisitor real) {
      super(Opcodes.ASM9);
      this.real = real;
    }

    @Override
    public void visitCode() {
      real.visitCode();
      real.visitInsn(Opcodes.ICONST_0);
      real.visitInsn(Opcodes.IRETURN);
      real.visitMaxs(1, 0);
      real.visitEnd();
    }
  }
}
