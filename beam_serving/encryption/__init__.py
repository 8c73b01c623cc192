"""Encrypted models and records: AES-GCM under a key that PBKDF2 makes of a secret and a salt.

    secret, salt --key_of--> AES key --seal--> IV | ciphertext | tag --open--> the same bytes, or an error

What Cluster Serving had, read from its source (Analytics Zoo 0.9 to BigDL 2.x):

- `EncryptSupportive.scala`: PBKDF2WithHmacSHA256, 65536 rounds over the UTF-8 of secret and salt, a key of 128 bits.
  AES/GCM/NoPadding: 12 bytes of IV, the ciphertext, 16 bytes of tag, in this order. AES/CBC/PKCS5PADDING: 16 bytes of
  IV and the ciphertext, as base64.
- `ClusterServingHelper.scala`: secret and salt of a model come from the hash `model_secured` in Redis, where the HTTP
  front end puts them; only OpenVINO models are decrypted.
- `InferenceModel.doLoadEncryptedOpenVINO`: its files are in CBC, which shows no tampering; the module `cbc` here reads
  them.
- `PreProcessing.decodeImage`: of a record the images are decrypted, with GCM. Secret and salt are the words "secret"
  and "salt", the names of fields taken for their values: the same key, which everybody knows, in every installation,
  made anew for every record. Tensors and results are not encrypted.

Here no secret is built in, the key is made once, and what is written is never in CBC.
"""
