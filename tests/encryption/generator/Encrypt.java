import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Base64;
import java.util.HexFormat;
import javax.crypto.Cipher;
import javax.crypto.SecretKeyFactory;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.IvParameterSpec;
import javax.crypto.spec.PBEKeySpec;
import javax.crypto.spec.SecretKeySpec;

/**
 * Encrypts as Cluster Serving's JVM did, with javax.crypto alone; nothing of its code is here. A program of one file:
 *
 *   java Encrypt.java answers > ../fixtures/known_answers.json
 *   java Encrypt.java cbc SECRET SALT PLAIN_FOLDER ENCRYPTED_FOLDER   the encrypted files of a model
 *   java Encrypt.java gcm SECRET SALT PLAIN_FILE ENCRYPTED_FILE       the bytes of an encrypted image
 *   java Encrypt.java open SECRET SALT CONTEXT_HEX SEALED_FILE PLAIN_FILE
 */
public class Encrypt {
    private static final HexFormat HEX = HexFormat.of();

    public static void main(String[] arguments) throws Exception {
        switch (arguments[0]) {
            case "answers" -> answers();
            case "cbc" -> folder(key(arguments[1], arguments[2]), Path.of(arguments[3]), Path.of(arguments[4]));
            case "gcm" -> Files.write(Path.of(arguments[4]), gcm(key(arguments[1], arguments[2]), random(12), new byte[0],
                Files.readAllBytes(Path.of(arguments[3]))));
            case "open" -> Files.write(Path.of(arguments[5]), open(key(arguments[1], arguments[2]),
                HEX.parseHex(arguments[3]), Files.readAllBytes(Path.of(arguments[4]))));
            default -> throw new IllegalArgumentException(arguments[0]);
        }
    }

    private static void folder(SecretKeySpec key, Path plain, Path encrypted) throws Exception {
        Files.createDirectories(encrypted);
        for (var file : plain.toFile().listFiles()) {
            Files.write(encrypted.resolve(file.getName()), cbc(key, random(16), Files.readAllBytes(file.toPath())));
        }
    }

    private static SecretKeySpec key(String secret, String salt) throws Exception {
        var spec = new PBEKeySpec(secret.toCharArray(), salt.getBytes(StandardCharsets.UTF_8), 65536, 128);
        var derived = SecretKeyFactory.getInstance("PBKDF2WithHmacSHA256").generateSecret(spec);
        return new SecretKeySpec(derived.getEncoded(), "AES");
    }

    /** A model file goes through text: its bytes are taken for Latin-1, and the UTF-8 of that is encrypted. */
    private static byte[] cbc(SecretKeySpec key, byte[] iv, byte[] plain) throws Exception {
        var cipher = Cipher.getInstance("AES/CBC/PKCS5PADDING");
        cipher.init(Cipher.ENCRYPT_MODE, key, new IvParameterSpec(iv));
        var text = new String(plain, StandardCharsets.ISO_8859_1).getBytes(StandardCharsets.UTF_8);
        return Base64.getEncoder().encode(joined(iv, cipher.doFinal(text)));
    }

    private static byte[] gcm(SecretKeySpec key, byte[] iv, byte[] context, byte[] plain) throws Exception {
        var cipher = Cipher.getInstance("AES/GCM/NoPadding");
        cipher.init(Cipher.ENCRYPT_MODE, key, new GCMParameterSpec(128, iv));
        cipher.updateAAD(context);
        return joined(iv, cipher.doFinal(plain));
    }

    private static byte[] open(SecretKeySpec key, byte[] context, byte[] sealed) throws Exception {
        var cipher = Cipher.getInstance("AES/GCM/NoPadding");
        cipher.init(Cipher.DECRYPT_MODE, key, new GCMParameterSpec(128, sealed, 0, 12));
        cipher.updateAAD(context);
        return cipher.doFinal(sealed, 12, sealed.length - 12);
    }

    private static void answers() throws Exception {
        var plain = new byte[300];
        for (var at = 0; at < plain.length; at++) {
            plain[at] = (byte) (at * 7);
        }
        String[][] secrets = {{"analytics-zoo-tested", "intel-analytics"}, {"Schl\u00fcssel \u4f60\u597d, ganz lang", "s\u00e4lzig 123"}};
        var lines = new StringBuilder();
        for (var pair : secrets) {
            var key = key(pair[0], pair[1]);
            var gcmIv = HEX.parseHex("000102030405060708090a0b");
            var cbcIv = HEX.parseHex("f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff");
            var context = "beam".getBytes(StandardCharsets.UTF_8);
            lines.append(lines.isEmpty() ? "" : ",\n").append(String.format(
                "{\"secret\": \"%s\", \"salt\": \"%s\",%n \"key\": \"%s\",%n \"plain\": \"%s\",%n \"gcm\": \"%s\","
                + "%n \"context\": \"%s\",%n \"gcm_with_context\": \"%s\",%n \"cbc\": \"%s\"}",
                escaped(pair[0]), escaped(pair[1]), HEX.formatHex(key.getEncoded()), HEX.formatHex(plain),
                HEX.formatHex(gcm(key, gcmIv, new byte[0], plain)), HEX.formatHex(context),
                HEX.formatHex(gcm(key, gcmIv, context, plain)),
                new String(cbc(key, cbcIv, plain), StandardCharsets.US_ASCII)));
        }
        System.out.println("[" + lines + "]");
    }

    private static String escaped(String text) {
        var written = new StringBuilder();
        text.chars().forEach(sign -> written.append(sign < 128 ? String.valueOf((char) sign) : String.format("\\u%04x", sign)));
        return written.toString();
    }

    private static byte[] random(int size) {
        var bytes = new byte[size];
        new java.security.SecureRandom().nextBytes(bytes);
        return bytes;
    }

    private static byte[] joined(byte[] first, byte[] second) throws Exception {
        var all = new ByteArrayOutputStream();
        all.write(first);
        all.write(second);
        return all.toByteArray();
    }
}
