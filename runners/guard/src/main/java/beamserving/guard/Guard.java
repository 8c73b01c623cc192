package beamserving.guard;

import java.io.IOException;
import java.lang.instrument.Instrumentation;
import java.net.Inet6Address;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketAddress;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;

/**
 * Keeps the ports of a Java process to this machine and to the user who runs it.
 *
 * <p>Flink, Spark and Beam listen at all addresses and ask nobody who he is. As an agent ({@code -javaagent:guard.jar})
 * this class is asked by Java's own server sockets: a port for all addresses becomes one of 127.0.0.1, and a connection
 * at a loopback address is closed unless its other end belongs to a process of the same user, which Linux tells in
 * {@code /proc/net/tcp}. With the option {@code all} ({@code -javaagent:guard.jar=all}) ports of any other address move
 * to 127.0.0.1 too; without it an address that was named is left alone, with whoever comes there.
 */
public final class Guard {
  private static final int TRIES = 3;
  private static final ThreadLocal<Boolean> ASKING = new ThreadLocal<>();
  private static boolean all;
  private static InetAddress here;
  private static String user;

  private Guard() {}

  /** Starts the guard before the program; what fails here ends the process. */
  public static void premain(String option, Instrumentation java) throws Exception {
    if (option != null && !option.equals("all")) {
      throw new IllegalArgumentException("guard.jar takes the option 'all' or none, got '" + option + "'");
    }
    if (Guard.class.getClassLoader() != null) {
      throw new IllegalStateException("the guard's file must be called guard.jar: by this name Java's classes find it");
    }
    if (!Files.isReadable(Path.of("/proc/self/net/tcp"))) {
      throw new IllegalStateException("/proc/self/net/tcp, which tells whose connections are, cannot be read");
    }
    all = option != null;
    here = InetAddress.getByAddress("localhost", new byte[] {127, 0, 0, 1});
    user = userOfThisProcess();
    Rewriting.install(java);
  }

  /** Gives the address to bind in place of the one that is wanted. */
  public static SocketAddress bound(SocketAddress wanted) {
    if (wanted == null) {
      return new InetSocketAddress(here, 0);
    }
    if (!(wanted instanceof InetSocketAddress) || ((InetSocketAddress) wanted).isUnresolved()) {
      return wanted;
    }
    InetSocketAddress address = (InetSocketAddress) wanted;
    boolean stays = address.getAddress().isLoopbackAddress() || !(all || address.getAddress().isAnyLocalAddress());
    return stays ? wanted : new InetSocketAddress(here, address.getPort());
  }

  /** Gives the connection, or the next one that is the user's own; null where a server does not wait for one. */
  public static SocketChannel accepted(ServerSocketChannel server, SocketChannel connection) throws IOException {
    if (ASKING.get() != null) {
      return connection;
    }
    ASKING.set(true);
    try {
      SocketChannel next = connection;
      while (next != null && !isOurs(next.socket().getRemoteSocketAddress(), next.socket().getLocalSocketAddress())) {
        next.close();
        next = server.accept();
      }
      return next;
    } finally {
      ASKING.remove();
    }
  }

  /** The same for the older kind of sockets. */
  public static Socket accepted(ServerSocket server, Socket connection) throws IOException {
    if (ASKING.get() != null) {
      return connection;
    }
    ASKING.set(true);
    try {
      Socket next = connection;
      while (!isOurs(next.getRemoteSocketAddress(), next.getLocalSocketAddress())) {
        next.close();
        next = server.accept();
      }
      return next;
    } finally {
      ASKING.remove();
    }
  }

  private static boolean isOurs(SocketAddress peer, SocketAddress own) {
    if (!(peer instanceof InetSocketAddress) || !(own instanceof InetSocketAddress)) {
      // Closed already, or a Unix socket, which has its rights in the file system.
      return peer != null && own != null;
    }
    if (!((InetSocketAddress) own).getAddress().isLoopbackAddress()) {
      return true;
    }
    try {
      // The kernel gives the table in pieces, between which a row may move.
      for (int at = 0; at < TRIES; at++) {
        String owner = ownerOf((InetSocketAddress) peer, (InetSocketAddress) own);
        if (owner != null) {
          return owner.equals(user);
        }
      }
    } catch (IOException unknown) {
      // The server goes on: of an error in `accept` some would stop listening.
      System.err.println("guard: a connection is refused, since its user cannot be looked up: " + unknown);
    }
    return false;
  }

  /** Gives the user of a connection's other end; null where the table has no such end that a process holds. */
  private static String ownerOf(InetSocketAddress peer, InetSocketAddress own) throws IOException {
    for (boolean wide : new boolean[] {false, true}) {
      String start = " " + inTable(peer, wide) + " " + inTable(own, wide) + " ";
      for (String row : table(wide ? "/proc/self/net/tcp6" : "/proc/self/net/tcp").split("\n")) {
        int at = row.indexOf(start);
        if (at < 0) {
          continue;
        }
        // State, queues, timer, retransmits, user, time-out, inode. Without an inode nobody holds it: the user is 0.
        String[] fields = row.substring(at + start.length()).trim().split("\\s+");
        return fields[6].equals("0") ? null : fields[4];
      }
    }
    return null;
  }

  private static String table(String path) throws IOException {
    try {
      return new String(Files.readAllBytes(Path.of(path)), StandardCharsets.US_ASCII);
    } catch (NoSuchFileException noIpv6) {
      return "";
    }
  }

  /** Gives an address as the kernel's table has it: words of four bytes in the machine's order, and the port. */
  private static String inTable(InetSocketAddress address, boolean wide) {
    byte[] bytes = address.getAddress().getAddress();
    if (wide && !(address.getAddress() instanceof Inet6Address)) {
      bytes = ByteBuffer.allocate(16).putLong(0).putInt(0xffff).put(bytes).array();
    }
    ByteBuffer words = ByteBuffer.wrap(bytes).order(ByteOrder.nativeOrder());
    StringBuilder text = new StringBuilder();
    while (words.hasRemaining()) {
      text.append(String.format("%08X", words.getInt()));
    }
    return text.append(String.format(":%04X", address.getPort())).toString();
  }

  private static String userOfThisProcess() throws IOException {
    for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
      if (line.startsWith("Uid:")) {
        return line.trim().split("\\s+")[2];
      }
    }
    throw new IOException("/proc/self/status does not tell the user");
  }
}
